"""Training of fusion models on the features of people who are not in the test."""
