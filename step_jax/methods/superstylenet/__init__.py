"""SuperStyleNet: style codes by superpixels, one per region, and a generator that draws with them.

Kim et al., "SuperStyleNet: Deep Image Synthesis with Superpixel Based Style Encoder", BMVC 2021.
"""
