"""How the embedded base is made: an endless captioned stream, an autoencoder, then U-Net and text encoder."""
