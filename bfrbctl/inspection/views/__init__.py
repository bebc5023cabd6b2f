"""The views: one module for each thing that can be looked into; each gives data, and none prints."""
