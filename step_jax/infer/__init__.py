"""Translation of image files by any trained run."""
