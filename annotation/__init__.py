"""From drafts and experts' corrections to FakeChain."""
