"""Networks to compare JDNet with: DCSFN, DANet, the PReNet family and RESCAN."""
