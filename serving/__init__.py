"""What a serving process is: its pipeline, its parts, its middleware, its seams with BentoML."""
