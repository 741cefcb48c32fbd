"""The training stages of pSp."""
