"""Streamlit screens. Numbers come from `perfmodel`, charts from `perfmodel.figures`."""
