"""Policies that come with foreact, a folder each, written by `foreact pack`: checkpoint=pretrained/NAME."""
