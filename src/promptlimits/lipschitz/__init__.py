"""Upper limits on Lipschitz constants, from weights: as published, and proved here."""
