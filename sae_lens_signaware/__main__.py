from sae_lens_signaware.cli import main

main()
