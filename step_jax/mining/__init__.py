"""Style distance at scale: from pictures to their nearest and farthest neighbours."""
