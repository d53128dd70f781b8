"""The code behind `msdet bench`: what speed claims rest on."""
