"""What every experiment runs on: data, flags, device, loop, checkpoints, reports.

Nothing here knows a bit width or a mask, and nothing here imports another folder of the project.
"""
