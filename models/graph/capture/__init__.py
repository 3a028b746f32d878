"""Capture: any module becomes its normal form. Start at form.py."""
