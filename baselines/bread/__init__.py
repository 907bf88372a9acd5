"""BREAD-style training: hints from expert traces, as short as they can be."""
