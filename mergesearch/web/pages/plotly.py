"""Plotly's own script, from the installed package: no page needs the internet."""

from pathlib import Path

import plotly
from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter()
SCRIPT = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


@router.get("/static/plotly.min.js")
def script() -> FileResponse:
    """Kept by browsers for a day."""
    return FileResponse(SCRIPT, media_type="text/javascript", headers={"Cache-Control": "public, max-age=86400"})
