"""Training scripts of the storybook's models, one module per model.

    imgalign storybook train data        # draw the training images
    imgalign storybook train autoencoder
    imgalign storybook train pipeline
    imgalign storybook train clip
    imgalign storybook train verifier
    imgalign storybook train language    # needs no images

Each can be stopped at any time and resumes where it stopped. Training images never show a held-out
combination (scenes.py).
"""
