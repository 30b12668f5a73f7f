"""What the federation learns: labelled images, how clients came by them, the frozen base, training and scoring."""
