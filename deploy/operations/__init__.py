"""The operations of a program: their settings and the shapes of their results. deploy.reference defines what they compute."""
