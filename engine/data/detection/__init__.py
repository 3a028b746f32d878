"""Pictures with boxes and classes of objects: COCO and YOLO folders, and composed scenes. sets.py opens the sets."""
