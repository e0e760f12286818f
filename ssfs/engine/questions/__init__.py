"""Answers to what people ask of versions: where is it, how did it change, what takes so much; all from catalogs."""
