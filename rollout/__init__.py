"""How traffic is dealt out to the two versions while it runs, and who changed it when and why."""
