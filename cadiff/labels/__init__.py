"""Labels as labelling tools write them: each format's module reads its files into ``model.Labelled``, and some write them."""
