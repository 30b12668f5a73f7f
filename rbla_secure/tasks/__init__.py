"""The learning task: labelled images, their split over clients, the frozen base, training and scoring."""
