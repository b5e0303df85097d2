"""The networks that JDNet is compared with: DCSFN, DANet, the PReNet family and RESCAN."""
