"""The application: which pages there are, who may see them, and what stands around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import streamlit as st

from core.errors import FakeScopeError
from dashboard import show
from dashboard.place import Place, find_place
from dashboard.screens import drafts, experts, images, instruct, progress, runs, teachers

Page = Callable[[Place], None]

PAGES: tuple[tuple[str, str, Page], ...] = (
    ("Progress", "progress", progress.show_page),
    ("Images and audit", "images", images.show_page),
    ("Drafts", "drafts", drafts.show_page),
    ("Experts", "experts", experts.show_page),
    ("Teachers and cost", "teachers", teachers.show_page),
    ("FakeInstruct", "instruct", instruct.show_page),
    ("Runs", "runs", runs.show_page),
)
"""title, address and content; no icons: the browser would fetch them from elsewhere"""


STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 5rem; }
:focus-visible, canvas:focus-within { outline: 2px solid currentColor !important; }
:focus-visible { outline-offset: 2px; }
main:focus-visible, canvas:focus-within { outline-offset: -2px; }
[data-testid="stElementToolbar"]:focus-within { z-index: 2; }
[data-testid="stElementToolbarButton"] { visibility: visible; }
[data-testid="stElementToolbar"]:focus-within, [data-testid="stCode"] :focus-within {
    opacity: 1 !important;
    transform: none !important;
    transition: none !important;
}
</style>"""
"""less room above the title; a ring around what the keyboard has reached, and the buttons of
charts and tables in sight"""


def run() -> None:
    """One look at one page."""
    st.set_page_config(page_title="FakeScope QA", layout="wide")
    st.html(STYLE)
    if not _may_look():
        return
    pages = [
        st.Page(
            partial(_show, page),
            title=title,
            url_path=address,
            default=number == 0,
        )
        for number, (title, address, page) in enumerate(PAGES)
    ]
    st.navigation(pages, position="top").run()


def _show(page: Page) -> None:
    """A page, or the reason why it cannot be shown."""
    try:
        page(find_place())
    except FakeScopeError as error:
        show.problem("This cannot be shown.", str(error))


def _may_look() -> bool:
    """True unless `.streamlit/secrets.toml` asks for a login that is still to come."""
    if not st.secrets.load_if_toml_exists() or "auth" not in st.secrets or st.user.is_logged_in:
        return True
    st.title("FakeScope QA")
    if find_spec("authlib") is None:
        show.problem(
            "A login is configured, but what it needs is not installed.",
            'Run make setup EXTRAS="dashboard login", and start the dashboard again.',
        )
    else:
        st.button("Log in", on_click=st.login, type="primary")
    return False


run()
