"""How the storybook's models were made: one module per model, runnable by anyone.

    python -m imgalign.storybook.train data        # draw the training pictures
    python -m imgalign.storybook.train autoencoder
    python -m imgalign.storybook.train pipeline
    python -m imgalign.storybook.train clip
    python -m imgalign.storybook.train verifier

Each can be stopped at any time and goes on where it stopped. Training pictures never show a
held-out combination (scenes.py).
"""
