"""Demonstrations: on disk, checked, converted, batched.

Import what you need from its module: `foreact.data.store.Store`, `foreact.data.loader.Dataset`, …
"""
