"""How networks predict: computed by NumPy from the layout and the saved weights, without Keras."""
