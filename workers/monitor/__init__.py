"""What watches running trials: time limits, memory of trial and node, and the resources that they take."""
