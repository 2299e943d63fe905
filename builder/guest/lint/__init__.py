"""What is known to keep images from booting in a cloud, or to leak out of them: rules over a guest's facts."""
