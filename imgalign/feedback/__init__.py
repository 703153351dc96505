"""AI feedback: a judge ranks the candidates of a queue by the principles of a constitution."""
