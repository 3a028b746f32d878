"""What programs compute: the one meaning that every other executor is measured against."""
