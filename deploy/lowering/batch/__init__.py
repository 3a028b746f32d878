"""Networks that move the axis of the pictures, rewritten so that every value has it first."""
