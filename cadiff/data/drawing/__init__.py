"""Procedural pictures of industrial surfaces and parts, with exactly masked defects; everything from a seed.

A picture is a ``Scene`` (albedo, height, gloss, the object's silhouette) that materials and shapes fill, defects
change, and one light shades. The demo data set and the embedded base's pre-training stream are drawn with it.
"""
