"""Language models that learn from experts and a verifier: the trainer that BREAD, MENTOR and their rivals share."""
