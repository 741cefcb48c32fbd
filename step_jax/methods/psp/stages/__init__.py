"""The stages of pSp, put together for the loop."""
