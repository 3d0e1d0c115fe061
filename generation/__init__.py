"""Images in, teacher drafts out."""
