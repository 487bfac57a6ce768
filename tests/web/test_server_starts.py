"""A real server answers, and ends when it is told to."""

from pathlib import Path

import httpx
from web.serving import serving


def test_a_server_starts_answers_and_ends(tmp_path: Path) -> None:
    """It says where it is before anyone can miss it."""
    with serving(f"sqlite:///{tmp_path}/a.db") as server:
        assert httpx.get(f"{server.url}/api/v1/openapi.json").json()["info"]["title"] == "mergesearch"
        assert httpx.get(f"{server.url}/static/plotly.min.js").status_code == 200
        assert httpx.get(f"{server.url}/static/style.css").status_code == 200
