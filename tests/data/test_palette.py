from razorlight.data.palette import voc_palette


def test_known_colours_of_the_voc_map() -> None:
    # aeroplane, bicycle, bird, boat, ... tvmonitor of PASCAL VOC 2012, and its void
    palette = voc_palette(256)
    assert palette[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)


def test_colours_are_distinct() -> None:
    assert len(set(voc_palette(256))) == 256
