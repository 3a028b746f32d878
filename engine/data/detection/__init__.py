"""Pictures with objects in them: boxes and classes, as COCO and YOLO users have them, and composed scenes. The sets: sets.py."""
