"""The released names of the tensors of every network.

A key is translated from left to right: at each position, the first matching pattern in the table of
the network is replaced, until the key is consumed. Shapes are those of the released tensors, except
in the channel attention of DANet: its 1x1 convolutions are linear layers here, without the trailing
1, 1.

All blocks in each half of DANet share one PReLU slope. The same tensor therefore appears under many
keys, `...body.1.weight`, here and in the released code.
"""

import re

LEAF = (r"(weight|bias)$", r"\1")

# The cells of `models.siblings.blocks`, after the name of the cell.
CELLS = (
    (r"update\.from_input\.", "conv_xz."),
    (r"update\.from_state\.", "conv_hz."),
    (r"reset\.from_input\.", "conv_xr."),
    (r"reset\.from_state\.", "conv_hr."),
    (r"candidate\.from_input\.", "conv_xn."),
    (r"candidate\.from_state\.", "conv_hn."),
    (r"input\.from_input\.", "conv_xi."),
    (r"input\.from_state\.", "conv_hi."),
    (r"forget\.from_input\.", "conv_xf."),
    (r"forget\.from_state\.", "conv_hf."),
    (r"cell\.from_input\.", "conv_xj."),
    (r"cell\.from_state\.", "conv_hj."),
    (r"output\.from_input\.", "conv_xo."),
    (r"output\.from_state\.", "conv_ho."),
    (r"mix\.from_input\.", "conv_x."),
    (r"mix\.from_state\.", "conv_h."),
)

JDNET = (
    (r"head\.", "enterBlock.0."),
    (r"tail\.", "exitBlock.0."),
    (r"dense\.(\d+\.)", r"derain_net.conv1x1.\g<1>0."),
    (r"(units\.\d+\.)", r"derain_net.\1"),
    (r"attention\.norm_in\.", "san.bn1."),
    (r"attention\.phi\.", "san.sam.conv1."),
    (r"attention\.psi\.", "san.sam.conv2."),
    (r"attention\.beta\.", "san.sam.conv3."),
    (r"attention\.position\.", "san.sam.conv_p."),
    (r"attention\.gamma1\.", "san.sam.conv_w.1."),
    (r"attention\.gamma2\.", "san.sam.conv_w.2."),
    (r"attention\.norm_out\.", "san.bn2."),
    (r"attention\.expand\.", "san.conv."),
    (r"aggregation\.down\.(\d+\.)", r"res_list.\1convert.0."),
    (r"aggregation\.blocks\.(\d+\.)(\d\.)", r"res_list.\1res.\2"),
    (r"aggregation\.fuse\.", "conv11.0."),
    (r"calibration\.split1\.", "scn.conv1_b."),
    (r"calibration\.split2\.", "scn.conv1_a."),
    (r"calibration\.k1\.", "scn.k1.0."),
    (r"calibration\.k2\.", "scn.scconv.k2.1."),
    (r"calibration\.k3\.", "scn.scconv.k3.0."),
    (r"calibration\.k4\.", "scn.scconv.k4.0."),
    (r"calibration\.merge\.", "scn.conv3."),
    (r"(weight|bias|running_mean|running_var|num_batches_tracked)$", r"\1"),
)

DCSFN = (
    *CELLS,
    (r"head\.", "convert."),
    (r"encoders\.0\.", "encoder_scale1."),
    (r"encoders\.1\.", "encoder_scale2."),
    (r"encoders\.2\.", "encoder_scale4."),
    (r"decoders\.0\.", "decoder_scale1."),
    (r"decoders\.1\.", "decoder_scale2."),
    (r"decoders\.2\.", "decoder_scale4."),
    (r"(units\.\d+\.)", r"\1"),
    (r"dense\.(\d+\.)", r"conv1x1.\1"),
    (r"stacks\.0\.(\d\.)", r"scale8.\1"),
    (r"stacks\.1\.(\d\.)", r"scale4.\1"),
    (r"stacks\.2\.(\d\.)", r"scale2.\1"),
    (r"stacks\.3\.(\d\.)", r"scale1.\1"),
    (r"connect\.0\.", "fusion84."),
    (r"connect\.1\.", "fusion42."),
    (r"connect\.2\.", "fusion21."),
    (r"fuse\.", "fusion_all."),
    (r"coarse_to_fine\.0\.", "rec1_1."),
    (r"coarse_to_fine\.1\.", "rec1_2."),
    (r"coarse_to_fine\.2\.", "rec1_4."),
    (r"fine_to_coarse\.0\.", "rec2_1."),
    (r"fine_to_coarse\.1\.", "rec2_2."),
    (r"fine_to_coarse\.2\.", "rec2_4."),
    (r"fuse_fine\.", "fusion_1_2_1."),
    (r"fuse_coarse\.", "fusion_2_2_1."),
    (r"unused_fine\.", "fusion_1_2_2."),
    (r"unused_coarse\.", "fusion_2_2_2."),
    (r"(merge\.[02]\.)", r"\1"),
    (r"(0\.)", r"\1"),  # a convolution before its LeakyReLU
    LEAF,
)

DANET = (
    (r"rain\.tail\.", "dsnet.tail."),
    (r"rain\.merge\.", "dsnet.fuse_conv."),
    (r"rain\.enter_small\.", "dsnet.shallow_feat1."),
    (r"rain\.enter_quadrants\.", "dsnet.shallow_feat2."),
    (r"rain\.trunk\.encoder\.", "dsnet.dsnnet_encoder."),
    (r"rain\.trunk\.decoder\.", "dsnet.dsnnet_decoder."),
    (r"rain\.trunk\.", "dsnet."),
    (r"detail\.tail\.", "ssnet.tail."),
    (r"detail\.widen\.", "ssnet.deep_conv."),
    (r"detail\.enter_rainy\.", "ssnet.stem.conv_stem0."),
    (r"detail\.enter_rain\.", "ssnet.stem.conv_stem2."),
    (r"detail\.enter_background\.", "ssnet.stem.conv_stem3."),
    (r"detail\.trunk\.encoder\.", "ssnet.ssnnet_encoder."),
    (r"detail\.trunk\.decoder\.", "ssnet.ssnnet_decoder."),
    (r"detail\.trunk\.", "ssnet."),
    (r"blocks\.(\d+\.)", r"orsnet.orb.body.\1"),
    # Encoder and decoder.
    (r"down\.0\.mix\.", "down_stage1.down.1."),
    (r"down\.1\.mix\.", "down_stage2.down.1."),
    (r"down\.2\.mix\.", "down_stage3.down.1."),
    (r"levels\.0\.", "encoder_level1."),
    (r"levels\.1\.", "encoder_level2."),
    (r"levels\.2\.", "encoder_level3."),
    (r"level(\d)\.", r"decoder_level\1."),
    (r"up(\d)\.mix\.", r"up_stage\1.up.1."),
    (r"from1to([23])\.mix\.", r"down_1\1.down.1."),
    (r"from2to3\.mix\.", "down_23.down.1."),
    (r"from3to([12])\.mix\.", r"up_3\1.up.1."),
    (r"from2to1\.mix\.", "up_21.up.1."),
    # Levels and blocks of both.
    (r"gather\.reduce\.0\.", "S2FB0.DSC1."),
    (r"gather\.reduce\.1\.", "S2FB0.DSC2."),
    (r"gather\.reduce\.2\.", "S2FB0.DSC3."),
    (r"gather\.attention\.", "S2FB0.CA_fea."),
    (r"combine\.reduce\.", "S2FB_fuse.DSC."),
    (r"combine\.attention\.", "S2FB_fuse.CA_fea."),
    (r"fuse\.reduce\.", "S2FB2.DSC."),
    (r"fuse\.attention\.", "S2FB2.CA_fea."),
    (r"block\.", "CAB1."),
    (r"(body\.[012]\.)", r"\1"),
    (r"attention\.", "CA."),
    (r"squeeze\.", "conv_du.0."),
    (r"excite\.", "conv_du.2."),
    (r"depth\.", "depth_conv."),
    (r"point\.", "point_conv."),
    (r"([01]\.)", r"\1"),  # of enter_small and enter_quadrants
    LEAF,
)

PRENET = (
    (r"head\.", "conv0.0."),
    (r"recurrent\.input\.", "conv_i.0."),
    (r"recurrent\.forget\.", "conv_f.0."),
    (r"recurrent\.cell\.", "conv_g.0."),
    (r"recurrent\.output\.", "conv_o.0."),
    (r"recurrent\.update\.", "conv_z.0."),
    (r"recurrent\.reset\.", "conv_b.0."),
    (r"recurrent\.candidate\.", "conv_g.0."),
    (r"blocks\.0\.([02]\.)", r"res_conv1.\1"),
    (r"blocks\.1\.([02]\.)", r"res_conv2.\1"),
    (r"blocks\.2\.([02]\.)", r"res_conv3.\1"),
    (r"blocks\.3\.([02]\.)", r"res_conv4.\1"),
    (r"blocks\.4\.([02]\.)", r"res_conv5.\1"),
    (r"tail\.", "conv.0."),
    LEAF,
)

RESCAN = (
    *CELLS,
    (r"cells\.(\d+\.)", r"rnns.\1"),
    (r"conv\.", "conv."),
    (r"activation\.0\.", "se."),
    (r"tail\.0\.", "dec.0."),
    (r"tail\.1\.0\.", "dec.1."),
    (r"tail\.2\.", "dec.3."),
    (r"squeeze\.", "fc.0."),
    (r"excite\.", "fc.2."),
    LEAF,
)

TABLES = {"jdnet": JDNET, "dcsfn": DCSFN, "danet": DANET, "prenet": PRENET, "rescan": RESCAN}


def released_key(network: str, key: str) -> str:
    """The released name of one of our tensors.

    Args:
        network: name of the network in `TABLES`.
        key: key of its `state_dict`.

    Raises:
        KeyError: the network has no such tensor.
    """
    released, rest = "", key
    while rest:
        for pattern, replacement in TABLES[network]:
            match = re.match(pattern, rest)
            if match:
                released += match.expand(replacement)
                rest = rest[match.end() :]
                break
        else:
            raise KeyError(key)
    return released
