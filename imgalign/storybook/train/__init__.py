"""Training scripts of the storybook's models, one module per model.

    python -m imgalign.storybook.train data        # draw the training images
    python -m imgalign.storybook.train autoencoder
    python -m imgalign.storybook.train pipeline
    python -m imgalign.storybook.train clip
    python -m imgalign.storybook.train verifier

Each can be stopped at any time and resumes where it stopped. Training images never show a held-out
combination (scenes.py).
"""
