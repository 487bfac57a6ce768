"""Passes over several models side by side: chunked in torch, compiled for large models, with the same bits."""
