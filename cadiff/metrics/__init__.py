"""What is measured: ranking of pixels and images, diversity and realism of generated images."""
