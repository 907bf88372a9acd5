"""How good an expert is: safe rates beside trivial baselines, understanding of scenes, and episodes driven alone."""
