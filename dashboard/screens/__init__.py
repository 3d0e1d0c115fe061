"""One module per page; each has `show_page`. A folder named `pages` would be Streamlit's own."""
