"""How networks are built: `layout` says of what, whatever computes them; the other modules are layers of Keras."""
