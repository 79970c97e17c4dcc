"""What judges saliency maps without knowing an environment."""
