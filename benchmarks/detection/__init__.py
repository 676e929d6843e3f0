"""Does an augmentation help a detector? The same detector, trained once per augmentation and seed."""
